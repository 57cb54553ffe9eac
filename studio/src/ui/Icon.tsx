/** Small drawings, all of one stroke. */

const PATHS = {
  undo: "M8 6 4 10l4 4M4 10h9a5 5 0 0 1 0 10h-2",
  redo: "m16 6 4 4-4 4M20 10h-9a5 5 0 0 0 0 10h2",
  close: "m6 6 12 12M18 6 6 18",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  fit: "M4 9V5a1 1 0 0 1 1-1h4M15 4h4a1 1 0 0 1 1 1v4M20 15v4a1 1 0 0 1-1 1h-4M9 20H5a1 1 0 0 1-1-1v-4",
  tidy: "M4 5h6v5H4zM4 14h6v5H4zM15 9.5h5v5h-5zM10 7.5h2.5v9H10M12.5 12H15",
  grid: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  pin: "M9 4h6l-1 6 3 3v2H7v-2l3-3zM12 15v6",
  star: "m12 4 2.5 5.2 5.5.8-4 4 1 5.7-5-2.8-5 2.8 1-5.7-4-4 5.5-.8z",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 9.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5z",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5",
  tune: "M4 7h9M19 7h1M4 17h3M13 17h7M16 4.5v5M10 14.5v5",
  upscale: "M4 12h8v8H4zM12 4h8v8M20 4l-7 7",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l4.5 4.5",
  photo: "M4 5h16v14H4zM4 16l5-5 4 4 2.5-2.5L20 17M15.5 8.5h.01",
  word: "M5 7V5h14v2M12 5v14M9 19h6",
  text: "M4 6h16M4 11h16M4 16h9",
  dice: "M5 5h14v14H5zM9 9h.01M15 15h.01M15 9h.01M9 15h.01",
  sum: "M17 7V5H6l6 7-6 7h11v-2",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  moon: "M20 14.5A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.5z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5",
  spark: "M12 3c.6 5 3 7.4 8 8-5 .6-7.4 3-8 8-.6-5-3-7.4-8-8 5-.6 7.4-3 8-8z",
  keys: "M3 6h18v12H3zM7 10h.01M11 10h.01M15 10h.01M17.5 10h.01M8 14h8",
  export: "M12 15V4M8 8l4-4 4 4M5 13v6h14v-6",
  warn: "M12 4 2.5 20h19zM12 10v4M12 17h.01",
  again: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
  stop: "M7 7h10v10H7z",
  check: "m5 12.5 4.5 4.5L19 7.5",
  command: "M4 6h16M4 12h16M4 18h9M18 15v6M15 18h6",
  wide: "M4 5h16v14H4zM14 5v14M11 12H7m0 0 2-2m-2 2 2 2",
  board: "M4 4h16v16H4zM12 4v16M4 12h8",
  back: "m14 6-6 6 6 6",
  next: "m10 6 6 6-6 6",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 20, fill = false }: { name: IconName; size?: number; fill?: boolean }) {
  const bold = name === "more" || name === "dice";
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill={fill ? "currentColor" : "none"}
      stroke="currentColor"
      strokeWidth={bold ? 2 : 1.6}
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}
