/** Who is here: one's own machines, friends', and members who aren't. */

import { useMemo, useState } from "preact/hooks";

import { Ticking, useEnvironment } from "./environment";
import { Invite } from "./Invite";
import { Button, Confirmed, Details, Empty, Facts, FILTER_ABOVE, Meter } from "./parts";
import type { Member } from "./store";
import { List } from "./Tasks";
import { VirtualTable, type Column } from "./VirtualTable";
import { clockTime, duration, elapsed, roundTrip, tasks, type Translate } from "./words";

export function Members() {
  const { control, t } = useEnvironment();
  const { store } = control;
  const [open, setOpen] = useState<string>();
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
  const all = store.members.size;
  const shown = open === undefined ? undefined : store.members.get(open);
  return (
    <>
      <Invite />
      {all === 0 ? (
        <Empty title={t("Nobody is here.")} type={t("p2p worker")}>
          {t("Whoever runs a worker on this board with the same key is listed here.")}
        </Empty>
      ) : (
        <List
          filter={all > FILTER_ABOVE || store.filters.members !== ""}
          value={store.filters.members}
          label={t("Filter members")}
          onFilter={(members) => control.filter({ members })}
          found={store.mine.items.length + store.friends.items.length + store.away.items.length}
        >
          <VirtualTable
            name="members"
            caption={t("Members of the cluster")}
            columns={columns}
            sections={[
              { key: "own", title: t("Yours"), rows: store.mine.items },
              { key: "friends", title: t("Friends"), rows: store.friends.items },
              { key: "away", title: t("Not here"), rows: store.away.items }
            ]}
            selected={open}
            onOpen={(member) => setOpen(member.id)}
          />
        </List>
      )}
      {shown === undefined ? null : <MemberDetails key={shown.id} member={shown} onClose={() => setOpen(undefined)} />}
    </>
  );
}

function Name({ member }: { member: Member }) {
  const { t } = useEnvironment();
  const roles = roleWords(member, t);
  const sub = [member.state, member.here ? linkWords(member, t) : "", machine(member)].filter((text) => text !== "").join(" · ");
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
  const hosted = store.means.hosted.includes(store.cluster.title);
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
          {stranger && hosted && control.can("revoke") ? (
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
  return member.me || member.state === "up" || member.state === "";
}

function machine(member: Member): string {
  return [member.machine, member.python === "" ? "" : `Python ${member.python}`].filter((text) => text !== "").join(" · ");
}

function linkWords(member: Member, t: Translate): string {
  const kinds: Record<string, string> = { direct: t("direct"), relay: t("by relay"), memory: t("in this process") };
  const kind = kinds[member.link] ?? member.link;
  return [kind, member.rtt > 0 ? roundTrip(member.rtt) : ""].filter((text) => text !== "").join(", ");
}

function roleWords(member: Member, t: Translate): string[] {
  const words: Record<string, string> = { owner: t("owner"), host: t("host"), client: t("client"), worker: t("worker") };
  const roles = member.roles.map((role) => words[role] ?? role);
  return member.me ? [t("this kernel"), ...roles] : roles;
}
