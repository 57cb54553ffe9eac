import type { ButtonHTMLAttributes } from "react";
import { Icon, type IconName } from "./Icon";

interface Props extends ButtonHTMLAttributes<HTMLButtonElement> {
  readonly icon: IconName;
  readonly label: string;
  readonly keys?: string;
  readonly small?: boolean;
  readonly fill?: boolean;
}

/** A button that is a drawing; its words are read aloud, and shown on hover. */
export function IconButton({ icon, label, keys, small, fill, className = "", ...rest }: Props) {
  return (
    <button
      type="button"
      className={`icon-button nodrag ${small ? "small" : ""} ${className}`}
      aria-label={label}
      title={keys ? `${label}  (${keys})` : label}
      {...rest}
    >
      <Icon name={icon} size={small ? 16 : 20} fill={fill ?? false} />
    </button>
  );
}
