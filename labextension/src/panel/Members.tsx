/** The members: one's own machines, those of friends, and absent members. */

import { useMemo } from "preact/hooks";

import { useEnvironment } from "./environment";
import { Invite } from "./Invite";
import { Listing } from "./Listing";
import { Empty, Meter } from "./parts";
import { Later } from "./Later";
import type { Member } from "./rows";
import { workerCommand } from "./summary";
import type { Column } from "./RowView";
import { join, linkWords, roleWords, tasks } from "./words";

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
        details={(member, close) => <Later key={member.id}>{({ MemberDetails }) => <MemberDetails member={member} onClose={close} />}</Later>}
      >
        <Empty title={t("Nobody is here.")} type={workerCommand(store)}>
          {t("Members who run a worker for this cluster are listed here.")}
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
        <span class="p2p-badges">
          {member.here && !isUp(member) ? <span class="p2p-dim p2p-wide-inline">{member.state}</span> : null}
          {roles.map((role, index) => <span key={role} class={`p2p-badge${member.me && index === 0 ? "" : " p2p-wide-inline"}`}>{role}</span>)}
        </span>
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

function isUp(member: Member): boolean {
  return member.me || ["up", "known", "here", ""].includes(member.state);
}

function machine(member: Member): string {
  return join(" · ", member.machine, member.python && `Python ${member.python}`);
}
