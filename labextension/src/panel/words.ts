/** Figures and states in words. Pure; `t` translates. */

import type { ClusterFacts, ClusterState, MemberRow, TaskState } from "./contract";
import type { Link } from "./transport";

/** "%1" in `text` is the first of `args`, and so on, as JupyterLab's translator has it. */
export type Translate = (text: string, ...args: Array<string | number>) => string;

/** Return the words untranslated. */
export const untranslated: Translate = (text, ...args) =>
  text.replace(/%(\d)/g, (whole, digit: string) => {
    const value = args[Number(digit) - 1];
    return value === undefined ? whole : String(value);
  });

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Bytes in at most three digits: "820 B", "1.2 kB", "34 MB". */
export function size(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit > 0 && value < 9.95 ? value.toFixed(1) : value.toFixed(0)} ${UNITS[unit] ?? ""}`;
}

/** Memory as it is sold: in powers of two, "16 GiB". */
export function memory(bytes: number): string {
  const gigabytes = bytes / 2 ** 30;
  return gigabytes >= 0.95 ? `${gigabytes < 9.95 ? gigabytes.toFixed(1).replace(/\.0$/, "") : gigabytes.toFixed(0)} GiB`
    : `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}

/** How long something took: "3 ms", "3.2 s", "1 min 05 s", "2 h 10 min", "3 d 4 h". */
export function duration(seconds: number): string {
  if (seconds < 0.9995) {
    return `${Math.max(0, seconds * 1000).toFixed(0)} ms`;
  }
  if (seconds < 59.95) {
    return `${seconds < 9.95 ? seconds.toFixed(1) : seconds.toFixed(0)} s`;
  }
  return long(seconds);
}

/** The duration of something that still lasts, in whole seconds: it ticks. */
export function elapsed(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  return whole < 60 ? `${whole} s` : long(whole);
}

function long(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 3600) {
    return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  }
  if (whole < 86400) {
    return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  }
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

function two(number: number): string {
  return String(number).padStart(2, "0");
}

/** A time of day, with the date unless that is today's. `at`, `now`: seconds since 1970. */
export function clockTime(at: number, now: number): string {
  const date = new Date(at * 1000);
  const time = date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  const sameDay = date.toDateString() === new Date(now * 1000).toDateString();
  return sameDay ? time : `${date.toLocaleDateString(undefined, { day: "numeric", month: "short" })}, ${time}`;
}

/** A round trip: "0.8 ms", "42 ms". */
export function roundTrip(seconds: number): string {
  const ms = seconds * 1000;
  return ms < 9.95 ? `${ms.toFixed(1)} ms` : ms < 9999.5 ? `${ms.toFixed(0)} ms` : duration(seconds);
}

/** "1 task", "3 tasks". */
export function tasks(count: number, t: Translate): string {
  return count === 1 ? t("1 task") : t("%1 tasks", count);
}

export function slots(count: number, t: Translate): string {
  return count === 1 ? t("1 slot") : t("%1 slots", count);
}

export function cores(count: number, t: Translate): string {
  return count === 1 ? t("1 core") : t("%1 cores", count);
}

export function workers(count: number, t: Translate): string {
  return count === 1 ? t("1 worker") : t("%1 workers", count);
}

/** Join the parts that are not empty. */
export function join(between: string, ...parts: Array<string | false | undefined>): string {
  return parts.filter(Boolean).join(between);
}

/** The owner in the name of a process: "bob" in "bob (vm)". */
export function person(name: string): string {
  const [who = ""] = name.split(" (", 1);
  return who === "" ? name : who;
}

export function linkWords(member: Pick<MemberRow, "link" | "rtt">, t: Translate): string {
  const kinds: Record<string, string> = { direct: t("direct"), relay: t("by relay"), memory: t("in this process") };
  const kind = kinds[member.link] ?? member.link;
  return join(", ", kind, member.rtt > 0 && roundTrip(member.rtt));
}

export function roleWords(member: Pick<MemberRow, "roles" | "me">, t: Translate): string[] {
  const roles = member.roles.map((role) => t(role));
  return member.me ? [t("this kernel"), ...roles] : roles;
}

/** A task's state and why: "waiting for a worker with python 3.12", "running on worker-1". */
export function taskWords(
  task: { state: TaskState; words: string; needs: string; worker: string; attempt: number },
  reasons: Readonly<Record<string, string>>,
  t: Translate
): string {
  const { state, words, worker } = task;
  if (state === "waiting") {
    return join("; ", words.startsWith("waiting") ? "" : reasons[task.needs], words) || t(state);
  }
  if (words !== "" && state !== "done" && state !== "failed") {
    return words;
  }
  return worker === "" || state === "cancelled" ? t(state) : t(state === "sent" ? "sent to %1" : `${state} on %1`, worker);
}

/** How much of a task is done, 0 to 1, from a line of its output such as "45%|████▌  | 9/20"; undefined if it doesn't say. */
export function progress(said: string): number | undefined {
  const percent = /(?:^|[^\d.])(\d{1,3})(?:\.\d+)?\s?%/.exec(said);
  if (percent !== null) {
    const value = Number(percent[1]);
    return value <= 100 ? value / 100 : undefined;
  }
  const part = /(?:^|\s)(\d{1,9})\s?\/\s?(\d{1,9})(?:\s|$)/.exec(said);
  if (part !== null) {
    const [done, all] = [Number(part[1]), Number(part[2])];
    return all > 0 && done <= all ? done / all : undefined;
  }
  return undefined;
}

/** The state between panel and cluster; `tone` picks shape and colour. */
export interface Standing {
  words: string;
  tone: "good" | "wait" | "bad" | "off";
  /** A line to type, if one helps. */
  type: string;
}

/** `stale`: for how many seconds an answer has been overdue; undefined if none is. `foreign`: the kernel's version is another. */
export function standing(
  link: Link, cluster: ClusterFacts, known: boolean, stale: number | undefined, t: Translate, foreign = false
): Standing {
  const not = (words: string, tone: Standing["tone"], type = ""): Standing => ({ words, tone, type });
  if (link.state === "closed") {
    return not(t("no kernel"), "off");
  }
  if (link.state === "absent") {
    return not(t("not loaded"), "off", "%load_ext p2p_ipython");
  }
  if (link.state === "open" && stale !== undefined) {
    const since = elapsed(stale);
    return not(link.busy ? t("kernel busy, stale since %1", since) : t("stale since %1", since), "wait");
  }
  if (link.state === "open" && foreign) {
    return not(t("The kernel has another version of p2p_ipython than this panel: install the same one for both, and reload the page."), "bad");
  }
  if (link.state === "opening" || !known) {
    return not(link.busy ? t("kernel busy") : t("opening"), "wait");
  }
  const { state, words } = cluster;
  return not(words || t(state === "none" ? "not connected" : state), TONES[state] ?? "wait");
}

const TONES: Partial<Record<ClusterState, Standing["tone"]>> = { // a newer kernel may know more of them
  none: "off", connecting: "wait", connected: "good", reconnecting: "wait", waiting: "wait", lost: "bad", closed: "off"
};
