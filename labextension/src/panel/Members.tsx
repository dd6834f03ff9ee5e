/** The members: one's own machines, those of friends, and absent members. */

import { useMemo } from "preact/hooks";

import { figureColumn, wordColumn } from "./columns";
import { useEnvironment } from "./environment";
import { Invite } from "./Invite";
import { Listing } from "./Listing";
import { Dot, Empty, Meter, Named } from "./parts";
import type { Member } from "./rows";
import { workerCommand } from "./summary";
import type { Column } from "./RowView";
import { join, linkWords, roleWords, tasks } from "./words";

export function Members() {
  const { control, t } = useEnvironment();
  const { store } = control;
  const columns = useMemo((): Array<Column<Member>> => [
    { key: "name", title: t("Name"), class: "p2p-main", cell: (member) => <Name member={member} /> },
    wordColumn("machine", t("Machine"), machine),
    wordColumn("link", t("Link"), (member) => linkWords(member, t)),
    wordColumn("trust", t("Results"), (member) => member.trust, "wider"),
    figureColumn("did", t("For me"), (member) => member.lentTasks > 0 ? tasks(member.lentTasks, t) : "", " p2p-wider"),
    figureColumn("slots", t("Busy"), (member) => <Slots member={member} />, " p2p-busy")
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
        details={({ MemberDetails }, member, close) => <MemberDetails member={member} onClose={close} />}
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
  const unsure = member.here && !isUp(member);
  return (
    <Named
      mark={<Dot kind={unsure ? " p2p-unsure" : member.here ? " p2p-up" : ""} />}
      name={member.name}
      sub={join(" · ", member.state, member.here && linkWords(member, t), machine(member))}
    >
      <span class="p2p-badges">
        {unsure ? <span class="p2p-dim p2p-wide-inline">{member.state}</span> : null}
        {roles.map((role, index) => <span key={role} class={`p2p-badge${member.me && index === 0 ? "" : " p2p-wide-inline"}`}>{role}</span>)}
      </span>
    </Named>
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
