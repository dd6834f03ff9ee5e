/** Lending this machine: workers that are lent now, and a button for the form to lend more. */

import { useState } from "preact/hooks";

import { useEnvironment } from "./environment";
import { Button } from "./parts";
import { Later } from "./Later";
import { lendable } from "./summary";

export function Lend() {
  const { control, t } = useEnvironment();
  const [open, setOpen] = useState<readonly string[]>(); // where it could be lent to when the form was opened
  const lent = control.store.lending.items;
  const titles = lendable(control.store);
  const may = control.can("lend") && (titles.length > 0 || open !== undefined);
  if (lent.length === 0 && !may) {
    return null;
  }
  return (
    <>
      {lent.length > 0 ? <Later>{({ Lent }) => lent.map((lending) => <Lent key={lending.id} lending={lending} />)}</Later> : null}
      {may ? open !== undefined ? <Later>{({ LendForm }) => <LendForm titles={open} onClose={() => setOpen(undefined)} />}</Later> : (
        <div class="p2p-bar"><Button onClick={() => setOpen(titles)}>{lent.length > 0 ? t("Lend it to another cluster …") : t("Lend this machine …")}</Button></div>
      ) : null}
    </>
  );
}
