/** Who is here: one's own machines, friends', and members who aren't. */

import { useMemo } from "preact/hooks";

import { Ticking, useEnvironment } from "./environment";
import { Invite } from "./Invite";
import { Listing } from "./Listing";
import { Button, Confirmed, Details, Empty, Facts, Meter } from "./parts";
import { owned, type Member } from "./store";
import type { Column } from "./VirtualTable";
import { clockTime, duration, elapsed, join, roundTrip, tasks, type Translate } from "./words";

export function Members() {
  const { control, t } = useEnvironment();
  const { store } = control;
  const columns = useMemo((): Array<Column<Member>> => [
    { key: "name", title: t("Name"), class: "p2p-main", cell: (member) => <Name member={member} /> },
    {
      key: "machine", title: t("Machine"), class: "p2p-words p2p-wide",
      cell: (member) => <span class="p2p-line" title={machine(member)}>{machine(member)}</span>
    },
    { key: "link", title: t("Link"), class: "p2p-words p2p-wide", cell: (member) => <span class="p2p-line">{linkWords(member, t)}</span> },
    { key: "trust", title: t("Results"), class: "p2p-words p2p-wider", cell: (member) => <span class="p2p-line">{member.trust}</span> },
    {
      key: "did", title: t("For me"), class: "p2p-figure p2p-wider",
      cell: (member) => member.lentTasks > 0 ? tasks(member.lentTasks, t) : ""
    },
    { key: "slots", title: t("Busy"), class: "p2p-figure p2p-busy", cell: (member) => <Slots member={member} /> }
  ], [t]);
  return (
    <>
      <Invite />
      <Listing
        name="members"
        caption={t("Members of the cluster")}
        columns={columns}
        sections={[
          { key: "own", title: t("Yours"), rows: store.mine.items },
          { key: "friends", title: t("Friends"), rows: store.friends.items },
          { key: "away", title: t("Not here"), rows: store.away.items }
        ]}
        all={store.members}
        count={store.members.size}
        details={(member, close) => <MemberDetails key={member.id} member={member} onClose={close} />}
      >
        <Empty title={t("Nobody is here.")} type="p2p worker">
          {t("Whoever runs a worker on this board with the same key is listed here.")}
        </Empty>
      </Listing>
    </>
  );
}

function Name({ member }: { member: Member }) {
  const { t } = useEnvironment();
  const roles = roleWords(member, t);
  const sub = join(" · ", member.state, member.here && linkWords(member, t), machine(member));
  return (
    <>
      <span class="p2p-name">
        <span class={`p2p-dot${member.here ? (isUp(member) ? " p2p-up" : " p2p-unsure") : ""}`} aria-hidden="true" />
        <span class="p2p-label" title={member.name}>{member.name}</span>
        {roles.map((role, index) => <span key={role} class={`p2p-badge${member.me && index === 0 ? "" : " p2p-wide-inline"}`}>{role}</span>)}
        {member.here && !isUp(member) ? <span class="p2p-dim p2p-wide-inline">{member.state}</span> : null}
      </span>
      <span class="p2p-sub" title={sub}>{sub}</span>
    </>
  );
}

function Slots({ member }: { member: Member }) {
  const { t } = useEnvironment();
  if (member.slots === 0 || !member.here) {
    return null;
  }
  const label = t("%1 of %2 slots busy", member.busy, member.slots);
  return (
    <span class="p2p-slots">
      <Meter part={member.busy} whole={member.slots} label={label} />
      <span aria-hidden="true">{member.busy}/{member.slots}</span>
    </span>
  );
}

function MemberDetails({ member, onClose }: { member: Member; onClose: () => void }) {
  const { control, t } = useEnvironment();
  const { store } = control;
  const who = member.key !== "" ? member.key : member.name;
  const stranger = !member.own && !member.me;
  const trusted = member.trust === "any type";
  return (
    <Details
      title={member.name}
      onClose={onClose}
      actions={
        <>
          {stranger && !trusted && control.can("trust") ? (
            <Confirmed
              name={t("Trust %1", member.name)}
              question={t("Let results of %1 be of any type? They can then run code here.", member.name)}
              yes={t("Trust")}
              onYes={() => void control.perform("trust", { member: who })}
            >
              {t("Trust")}
            </Confirmed>
          ) : null}
          {stranger && trusted && control.can("distrust") ? (
            <Button name={t("Trust %1 no longer", member.name)} onClick={() => void control.perform("distrust", { member: who })}>
              {t("Trust no longer")}
            </Button>
          ) : null}
          {stranger && owned(store) && control.can("revoke") ? (
            <Confirmed
              name={t("Take %1 out", member.name)}
              question={t("Take %1 out of %2? The others get a new key.", member.name, store.cluster.title)}
              yes={t("Take out")}
              onYes={() => void control.perform("revoke", { title: store.cluster.title, member: who })}
            >
              {t("Take out")}
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
          [t("Ran on mine"), usage(member.usedTasks, member.usedSeconds, t)],
          [t("Key"), member.key === "" ? "" : <code>{member.key}</code>]
        ]}
      />
    </Details>
  );
}

function usage(count: number, seconds: number, t: Translate): string {
  return count > 0 ? t("%1, %2", tasks(count, t), duration(seconds)) : "";
}

function isUp(member: Member): boolean {
  return member.me || ["up", "known", "here", ""].includes(member.state);
}

function machine(member: Member): string {
  return join(" · ", member.machine, member.python && `Python ${member.python}`);
}

function linkWords(member: Member, t: Translate): string {
  const kinds: Record<string, string> = { direct: t("direct"), relay: t("by relay"), memory: t("in this process") };
  const kind = kinds[member.link] ?? member.link;
  return join(", ", kind, member.rtt > 0 && roundTrip(member.rtt));
}

function roleWords(member: Member, t: Translate): string[] {
  const roles = member.roles.map((role) => t(role));
  return member.me ? [t("this kernel"), ...roles] : roles;
}
