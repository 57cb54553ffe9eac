/** How wires and roles are spoken of. */

import type { Unready } from "../model/text";
import type { Refusal } from "../model/wires";
import { named, t } from "../texts";

export const roleTitle = (role: string): string => named("role", role);

export function refusalText(why: Refusal): string {
  if (why.why === "end") return t("wire.end");
  return why.why === "circle" ? t("wire.circle") : t(`wire.${why.why}`, { role: roleTitle(why.role) });
}

export const unreadyText = (why: Unready, model: string): string => t(`ready.${why.why}`, { model });
