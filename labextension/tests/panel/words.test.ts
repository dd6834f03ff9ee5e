import { describe, expect, test } from "vitest";

import {
  duration, elapsed, memory, progress, roundTrip, size, standing, taskWords, untranslated as t
} from "../../src/panel/words";
import { Store } from "../../src/panel/store";

describe("figures", () => {
  test("sizes have at most three digits", () => {
    expect([0, 999, 1000, 1234, 9949, 9951, 34_000_000, 999_600, 5e15].map(size)).toEqual(
      ["0 B", "999 B", "1.0 kB", "1.2 kB", "9.9 kB", "10 kB", "34 MB", "1.0 MB", "5.0 PB"]
    );
    expect(memory(16 * 2 ** 30)).toBe("16 GiB");
    expect(memory(512 * 2 ** 20)).toBe("512 MiB");
  });

  test("durations are in the unit that fits", () => {
    expect([0, 0.0031, 0.9996, 3.21, 9.96, 59.94, 59.96, 65, 3600, 7830, 273_600].map(duration)).toEqual(
      ["0 ms", "3 ms", "1.0 s", "3.2 s", "10 s", "60 s", "1 min 00 s", "1 min 05 s", "1 h 00 min", "2 h 10 min", "3 d 4 h"]
    );
    expect([-3, 0.9, 59.9, 60].map(elapsed)).toEqual(["0 s", "0 s", "59 s", "1 min 00 s"]);
    expect([0.0008, 0.042, 12].map(roundTrip)).toEqual(["0.8 ms", "42 ms", "12 s"]);
  });

  test("a line of output tells how far a task is, or nothing", () => {
    expect(progress(" 62%|██████▏   | 62/100 [00:51<00:31]")).toBe(0.62);
    expect(progress("step 3/12")).toBe(0.25);
    expect(progress("epoch 14: loss 0.0312")).toBeUndefined();
    expect(progress("140%")).toBeUndefined();
    expect(progress("5/0")).toBeUndefined();
  });
});

describe("how things stand", () => {
  const cluster = new Store().cluster;
  const words = (state: "closed" | "absent" | "opening" | "open", busy: boolean, known: boolean, stale?: number) =>
    standing({ state, busy }, { ...cluster, state: "connected", words: "connected" }, known, stale, t).words;

  test("each state of the link has its words", () => {
    expect(words("closed", false, true)).toBe("no kernel");
    expect(words("absent", false, false)).toBe("not loaded");
    expect(words("opening", false, false)).toBe("opening");
    expect(words("opening", true, false)).toBe("kernel busy");
    expect(words("open", true, false)).toBe("kernel busy");
    expect(words("open", true, true)).toBe("connected");
    expect(words("open", false, true, 12.4)).toBe("stale since 12 s");
    expect(words("open", true, true, 12.4)).toBe("kernel busy, stale since 12 s");
  });

  test("the kernel's own words are used where it has some", () => {
    const link = { state: "open", busy: false } as const;
    expect(standing(link, { ...cluster, state: "reconnecting", words: "reconnecting, 3rd try" }, true, undefined, t)).toMatchObject(
      { words: "reconnecting, 3rd try", tone: "wait" }
    );
    expect(standing(link, { ...cluster, state: "waiting", words: "waiting for alice's approval" }, true, undefined, t).tone).toBe("wait");
    expect(standing(link, cluster, true, undefined, t).words).toBe("not connected");
  });

  test("a kernel without the extension is told what to type", () => {
    expect(standing({ state: "absent", busy: false }, cluster, false, undefined, t).type).toBe("%load_ext p2p_ipython");
  });
});

test("a task that waits says why, and what is peculiar to it", () => {
  const task = { state: "waiting" as const, words: "after losing bob: gone", needs: "3.12", worker: "", attempt: 1 };
  expect(taskWords(task, { "3.12": "waiting for a worker with python 3.12" }, t)).toBe(
    "waiting for a worker with python 3.12; after losing bob: gone"
  );
  expect(taskWords({ ...task, words: "waiting for bob's yes" }, { "3.12": "waiting for a free slot of 1" }, t)).toBe("waiting for bob's yes");
  expect(taskWords({ ...task, words: "" }, {}, t)).toBe("waiting");
  expect(taskWords({ ...task, state: "running", words: "", worker: "attic" }, {}, t)).toBe("running on attic");
  expect(taskWords({ ...task, state: "stopping", words: "stopping on attic", worker: "attic" }, {}, t)).toBe("stopping on attic");
});

test("what is put into a text is not itself looked at", () => {
  expect(t("Cancel %1 of %2", "%2", "x")).toBe("Cancel %2 of x");
});
