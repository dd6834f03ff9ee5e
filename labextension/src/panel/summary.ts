/** Summaries of a store: unfinished tasks, capacity, and clusters that this machine could be lent to. Pure. */

import type { Store } from "./store";

/** The number of unfinished tasks, also in states that only a newer kernel knows. */
export function unfinished(store: Store): number {
  return store.cluster.unlisted + store.tasks.size - ended(store);
}

/** The number of tasks in the list that have ended. */
export function ended({ counts }: Store): number {
  return counts.done + counts.failed + counts.cancelled;
}

/** Whether there is no cluster now; one that is closed may still be shown. */
export function unconnected({ cluster }: Store): boolean {
  return cluster.state === "none" || cluster.state === "closed";
}

/** Whether the present cluster is shared, and this user's own. */
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

/** The command that starts a worker for this cluster; "" if it isn't known, or not to be typed. */
export function workerCommand({ cluster }: Store): string {
  return cluster.kind === "shared" ? `p2p worker --cluster ${cluster.title}` : /p2p worker .*/.exec(cluster.note)?.[0] ?? "";
}

/** Clusters that this machine could be lent to and isn't. The present one comes first; "" stands for one that isn't shared. */
export function lendable({ cluster, means, lending }: Store): string[] {
  const here = cluster.state === "closed" ? [] : cluster.kind === "shared" ? [cluster.title] : cluster.kind === "own" ? [""] : [];
  const lent = new Set(lending.items.filter(({ state }) => state !== "failed").map(({ title }) => title));
  return [...new Set([...here, ...means.clusters])].filter((title) => !lent.has(title || cluster.title) && !lent.has(title || cluster.board));
}

/** The workers that are here, their slots, and how many of these are busy. */
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
