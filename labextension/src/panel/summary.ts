/** Summaries of a store: how much there is to do, who could do it, what this user could lend to. Pure. */

import type { Store } from "./store";

/** How many tasks are on their way, also in states of which only a newer kernel knows. */
export function unfinished({ cluster, tasks, counts }: Store): number {
  return cluster.unlisted + tasks.size - counts.done - counts.failed - counts.cancelled;
}

/** Whether the shared cluster that one is in is one's own. */
export function owned(store: Store): boolean {
  if (store.cluster.kind === "shared") {
    for (const member of store.members.values()) {
      if (member.me) {
        return member.roles.includes("owner");
      }
    }
  }
  return false;
}

/** What starts a worker for this cluster; "" where that isn't known, or not to be typed. */
export function workerCommand({ cluster }: Store): string {
  return cluster.kind === "shared" ? `p2p worker --cluster ${cluster.title}` : /p2p worker .*/.exec(cluster.note)?.[0] ?? "";
}

/** Clusters that this machine could be lent to and isn't; the one that one is in comes first, "" where it isn't shared. */
export function lendable({ cluster, means, lending }: Store): string[] {
  const here = cluster.state === "closed" ? [] : cluster.kind === "shared" ? [cluster.title] : cluster.kind === "own" ? [""] : [];
  const lent = new Set(lending.items.filter(({ state }) => state !== "failed").map(({ title }) => title));
  return [...new Set([...here, ...means.clusters])].filter((title) => !lent.has(title || cluster.title) && !lent.has(title || cluster.board));
}

/** Workers that are here and not this kernel's idle self, their slots and how many of these are busy. */
export function capacity(store: Store): { workers: number; slots: number; busy: number } {
  let workers = 0;
  let slots = 0;
  let busy = 0;
  for (const member of store.members.values()) {
    if (member.here && member.slots > 0) {
      workers += 1;
      slots += member.slots;
      busy += Math.min(member.busy, member.slots);
    }
  }
  return { workers, slots, busy };
}
