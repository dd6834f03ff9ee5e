/** The way to ask somebody in. */

import { useState } from "preact/hooks";

import { useEnvironment } from "./environment";
import { Button } from "./parts";
import { Later } from "./Later";

export function Invite() {
  const { control, t } = useEnvironment();
  const [open, setOpen] = useState(false);
  if (open) {
    return <Later>{({ Invitation }) => <Invitation onClose={() => setOpen(false)} />}</Later>;
  }
  return control.can("invite") ? <div class="p2p-bar"><Button onClick={() => setOpen(true)}>{t("Invite …")}</Button></div> : null;
}
