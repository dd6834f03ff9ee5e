// @vitest-environment happy-dom
import { nullTranslator } from "@jupyterlab/translation";
import { Signal } from "@lumino/signaling";
import { Widget } from "@lumino/widgets";
import { describe, expect, it, vi } from "vitest";

import { PanelSidebar } from "../../src/lab/sidebar";
import type { IKernelLinks, Work } from "../../src/lab/tokens";
import type { Link } from "../../src/panel/transport";

vi.mock("@jupyterlab/apputils", () => ({ Notification: { error: vi.fn() }, showErrorMessage: vi.fn() }));
vi.mock("../../src/lab/icon", () => ({ p2pIcon: undefined }));

const ABSENT: Link = { state: "absent", busy: false };

/** A notebook whose kernel hasn't loaded the extension, and doesn't until it is told to. */
function slow() {
  const title = new Widget().title;
  let done = (): void => undefined;
  let fail: (why: Error) => void = () => undefined;
  const work: Work = {
    link: { link: ABSENT, listen: () => () => undefined, hello: () => undefined, act: () => new Promise(() => {}) },
    title,
    run: () =>
      new Promise((resolve, reject) => {
        done = resolve;
        fail = reject;
      })
  };
  return { work, done: () => done(), fail: (why: string) => fail(new Error(why)) };
}

describe("the button that loads the extension", () => {
  function sidebar(first: Work) {
    const links = { current: first } as { current: Work | null; currentChanged: Signal<unknown, Work | null> };
    links.currentChanged = new Signal<unknown, Work | null>(links);
    const widget = new PanelSidebar(links as unknown as IKernelLinks, nullTranslator.load("p2p_ipython"));
    Widget.attach(widget, document.body);
    const turn = (work: Work | null): void => {
      links.current = work;
      links.currentChanged.emit(work);
    };
    const button = widget.node.querySelector<HTMLButtonElement>(".p2p-sidebar-load")!;
    return { widget, button, turn };
  }

  it("waits for its own notebook's kernel only", async () => {
    const [first, second] = [slow(), slow()];
    const { widget, button, turn } = sidebar(first.work);
    await vi.waitFor(() => expect(button.hidden).toBe(false));
    button.click();
    expect(button.disabled).toBe(true);
    turn(second.work);
    await vi.waitFor(() => expect(button.disabled).toBe(false));
    turn(first.work);
    await vi.waitFor(() => expect(button.disabled).toBe(true));
    first.done();
    await vi.waitFor(() => expect(button.disabled).toBe(false));
    widget.dispose();
  });

  it("says why it could not, and all of it when that is long", async () => {
    const { Notification } = await import("@jupyterlab/apputils");
    const first = slow();
    const { widget, button } = sidebar(first.work);
    await vi.waitFor(() => expect(button.hidden).toBe(false));
    for (const why of ["No module named 'p2p_ipython'", "x".repeat(200)]) {
      button.click();
      first.fail(why);
      await vi.waitFor(() => expect(button.disabled).toBe(false));
    }
    const said = vi.mocked(Notification.error).mock.calls;
    expect(said.map(([, options]) => options?.actions?.length)).toEqual([0, 1]);
    expect(said[0]![0]).toContain("No module named 'p2p_ipython'");
    widget.dispose();
  });
});

describe("the sidebar", () => {
  async function shown() {
    const { work } = slow();
    work.title.label = "Untitled.ipynb";
    const links = { current: work } as { current: Work | null; currentChanged: Signal<unknown, Work | null> };
    links.currentChanged = new Signal<unknown, Work | null>(links);
    const widget = new PanelSidebar(links as unknown as IKernelLinks, nullTranslator.load("p2p_ipython"));
    const activate = (): void => (widget as unknown as { onActivateRequest(): void }).onActivateRequest();
    const there = (): Promise<unknown> => vi.waitFor(() => expect(widget.node.querySelector(".p2p-panel")).not.toBeNull());
    Widget.attach(widget, document.body);
    return { widget, work, activate, there };
  }

  it("is called by the notebook's name, also when that changes", async () => {
    const { widget, work, there } = await shown();
    await there();
    work.title.label = "analysis.ipynb";
    expect(widget.node.querySelector(".p2p-panel")?.getAttribute("aria-label")).toBe("p2p cluster of analysis.ipynb");
    widget.dispose();
  });

  it("has the keyboard when it is opened, also if its panel must be fetched first; but not when it opens by itself", async () => {
    const { widget, activate, there } = await shown();
    const before = document.body.appendChild(document.createElement("input"));
    before.focus();
    activate();
    await there();
    await vi.waitFor(() => expect(widget.node.contains(document.activeElement)).toBe(true));
    before.focus();
    widget.showQuietly(activate);
    expect(document.activeElement).toBe(before);
    activate();
    expect(widget.node.contains(document.activeElement)).toBe(true);
    before.remove();
    widget.dispose();
  });
});

describe("where there is nothing to show", () => {
  it("says what to open, and what loading the extension brings", async () => {
    const links = { current: null } as { current: Work | null; currentChanged: Signal<unknown, Work | null> };
    links.currentChanged = new Signal<unknown, Work | null>(links);
    const widget = new PanelSidebar(links as unknown as IKernelLinks, nullTranslator.load("p2p_ipython"));
    Widget.attach(widget, document.body);
    await vi.waitFor(() => expect(widget.node.textContent).toContain("Open a notebook or a console"));
    const why = widget.node.querySelector<HTMLElement>(":scope > .p2p-sidebar-why")!;
    expect(why.hidden).toBe(true);
    const { work } = slow();
    work.title.label = "Untitled.ipynb";
    links.current = work;
    links.currentChanged.emit(work);
    await vi.waitFor(() => expect(why.hidden).toBe(false));
    expect(why.textContent).toContain("begins with %%p2p runs on another machine");
    expect(widget.node.textContent).not.toContain("Open a notebook");
    expect(widget.node.querySelector("section")?.getAttribute("aria-label")).toBe("p2p cluster of Untitled.ipynb");
    widget.dispose();
  });
});

describe("the panel's code", () => {
  it("may be out of reach, as after the server has ended: it says so", async () => {
    vi.resetModules();
    vi.doMock("../../src/panel", () => {
      throw new Error("Loading chunk 426 failed.");
    });
    const { PanelSidebar: Sidebar } = await import("../../src/lab/sidebar");
    const links = { current: null, currentChanged: { connect: () => true, disconnect: () => true } };
    const widget = new Sidebar(links as unknown as IKernelLinks, nullTranslator.load("p2p_ipython"));
    document.body.append(widget.node);
    (widget as unknown as { _show(): void })._show();
    await vi.waitFor(() => expect(widget.node.textContent).toContain("Reload the page"));
    widget.dispose();
    vi.doUnmock("../../src/panel");
  });
});
