import { LabIcon } from "@jupyterlab/ui-components";

/** Three machines, each linked with the others. Classes of JupyterLab's give it the theme's colour. */
const svgstr = `<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" viewBox="0 0 24 24" fill="none">
  <g class="jp-icon3" stroke="#616161" stroke-width="1.6"><path d="M10.6 7.6 6.9 14.2M13.4 7.6l3.7 6.6M8.6 17h6.8"/></g>
  <g class="jp-icon3 jp-icon-selectable" fill="#616161">
    <circle cx="12" cy="5" r="3.1"/><circle cx="5.4" cy="17" r="3.1"/><circle cx="18.6" cy="17" r="3.1"/>
  </g>
</svg>`;

export const p2pIcon = new LabIcon({ name: "@p2p-ipython/labextension:p2p", svgstr });
