/** Names that others know parts of the extension by. */

export const SIDEBAR_PLUGIN = "@p2p-ipython/labextension:sidebar";
export const SIDEBAR = "p2p-panel-sidebar";
export const DOMAIN = "p2p_ipython";

export const CommandIDs = {
  showPanel: "p2p-ipython:show-panel",
  load: "p2p-ipython:load",
  connectPersonal: "p2p-ipython:connect-personal",
  disconnect: "p2p-ipython:disconnect",
  cancelAll: "p2p-ipython:cancel-all",
  runCell: "p2p-ipython:run-cell"
} as const;
