/** The questions to the lender: tasks of other members that wait for a yes. All that they show is a stranger's text. */

import { useState } from "preact/hooks";

import { Ticking, useAlive, useEnvironment } from "./environment";
import { Button } from "./parts";
import type { Question } from "./rows";
import { elapsed, size } from "./words";

export function Questions() {
  const { control, t } = useEnvironment();
  const questions = control.store.questions.items;
  return questions.length === 0 ? null : (
    <ul class="p2p-questions" aria-label={t("Tasks that wait for your yes")}>
      {questions.map((question) => <Card key={question.id} question={question} />)}
    </ul>
  );
}

function Card({ question }: { question: Question }) {
  const { control, t } = useEnvironment();
  const { number, key, label, kind, source, cut, options } = question;
  const [busy, setBusy] = useState(false);
  const alive = useAlive();
  const name = question.name || t("A member");
  const cell = kind === "cell";
  const answer = async (word: string): Promise<void> => {
    setBusy(true);
    await control.perform("answer", { number, answer: word });
    if (alive.current) {
      setBusy(false);
    }
  };
  return (
    <li class="p2p-box">
      <p>
        <strong>{name}</strong> {t("asks to run")} <code>{label}</code> {t("on %1, lent to %2:", question.worker, question.title)}{" "}
        {cell ? t("a cell") : t("a call of a function, which travels as data")}, {size(question.size)}{options === "" ? null : `; ${options}`}.
      </p>
      <p class="p2p-dim">{t("Key:")} <code>{key}</code></p>
      {source === "" ? null : <pre class="p2p-source" tabIndex={0} role="region" aria-label={t("Source of %1", label)}>{source}</pre>}
      {cut === "" ? null : <p class="p2p-note">{t("Not shown: %1.", cut)}</p>}
      {question.walled ? <p>{t("Data can carry code: the sandbox is what holds it.")}</p>
        : <p class="p2p-note">{t("No sandbox is around it: it runs as you, with your files in reach.")}</p>}
      {control.can("answer") ? (
        <p class="p2p-row">
          <Button kind="strong" disabled={busy} name={t("Run %1 of %2 once", label, name)} onClick={() => void answer("once")}>{t("Once")}</Button>
          <Button disabled={busy} name={t("Always run tasks of %1", name)} onClick={() => void answer("member")}>{t("Always for %1", name)}</Button>
          {question.same ? (
            <Button disabled={busy} name={t("Always run %1 of %2, as it is now", label, name)} onClick={() => void answer("same")}>
              {cell ? t("Always for this cell") : t("Always for this call")}
            </Button>
          ) : null}
          <Button disabled={busy} name={t("Don't run %1 of %2", label, name)} onClick={() => void answer("no")}>{t("No")}</Button>
          <Ticking>{(now) => <span class="p2p-dim">{t("no answer within %1 is no", elapsed(question.until - now))}</span>}</Ticking>
        </p>
      ) : null}
    </li>
  );
}
