import type { JupyterFrontEndPlugin } from "@jupyterlab/application";

const panel: JupyterFrontEndPlugin<void> = {
  id: "@p2p-ipython/labextension:panel",
  description: "A sidebar with the cluster of the current notebook.",
  autoStart: true,
  activate: () => undefined
};

export default [panel];
