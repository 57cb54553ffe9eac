/** The mark: three operands that overlap. */
export function Brand() {
  return (
    <>
      <svg width="26" height="26" viewBox="0 0 32 32" aria-hidden="true">
        <circle cx="11" cy="12.5" r="7.5" fill="#e08a5b" />
        <circle cx="21" cy="12.5" r="7.5" fill="#6f93dd" opacity=".9" />
        <circle cx="16" cy="20.5" r="7.5" fill="#6fb38f" opacity=".9" />
      </svg>
      <span className="word">pops</span>
    </>
  );
}
