/** The details of one member, with buttons to trust and to remove them. */

import { Facts, Details } from "./details";
import { Ticking, useEnvironment } from "./environment";
import { Button, Confirmed } from "./parts";
import type { Member } from "./rows";
import { owned } from "./summary";
import { clockTime, duration, elapsed, linkWords, person, roleWords, tasks, type Translate } from "./words";

export function MemberDetails({ member, onClose }: { member: Member; onClose: () => void }) {
  const { control, t } = useEnvironment();
  const { store } = control;
  const who = member.key !== "" ? member.key : member.name;
  const stranger = !member.own && !member.me;
  const called = person(member.name);
  const trusted = member.trust === "any type";
  return (
    <Details
      title={member.name}
      onClose={onClose}
      actions={
        <>
          {stranger && !trusted && control.can("trust") ? (
            <Confirmed
              name={t("Trust %1", called)}
              question={t("Let results of %1 be of any type? They can then run code here.", called)}
              yes={t("Trust")}
              onYes={() => void control.perform("trust", { member: who })}
            >
              {t("Trust")}
            </Confirmed>
          ) : null}
          {stranger && trusted && control.can("distrust") ? (
            <Button name={t("Stop trusting %1", called)} onClick={() => void control.perform("distrust", { member: who })}>
              {t("Stop trusting")}
            </Button>
          ) : null}
          {stranger && owned(store) && control.can("revoke") ? (
            <Confirmed
              name={t("Remove %1", called)}
              question={t("Remove %1 from %2? The others get a new key.", called, store.cluster.title)}
              yes={t("Remove")}
              onYes={() => void control.perform("revoke", { title: store.cluster.title, member: who })}
            >
              {t("Remove")}
            </Confirmed>
          ) : null}
        </>
      }
    >
      <Facts
        facts={[
          [t("State"), member.state],
          [t("Role"), roleWords(member, t).join(", ")],
          [t("Machine"), member.machine],
          [t("Python"), member.python],
          [t("Here since"), member.since > 0 && member.here ? (
            <Ticking>{(now) => t("%1, for %2", clockTime(member.since, now), elapsed(now - member.since))}</Ticking>
          ) : ""],
          [t("Slots"), member.slots > 0 ? t("%1 of %2 busy", member.busy, member.slots) : ""],
          [t("Link"), linkWords(member, t)],
          [t("Results may be"), member.trust],
          [t("Ran for me"), usage(member.lentTasks, member.lentSeconds, t)],
          [t("Ran on this machine"), usage(member.usedTasks, member.usedSeconds, t)],
          [t("Key"), member.key === "" ? "" : <code>{member.key}</code>]
        ]}
      />
    </Details>
  );
}

function usage(count: number, seconds: number, t: Translate): string {
  return count > 0 ? t("%1, %2", tasks(count, t), duration(seconds)) : "";
}
