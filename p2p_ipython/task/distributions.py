"""The name under which a module's package is installed, where that is another one than the module's.

Pure.
"""

from __future__ import annotations

import sys

from p2p_ipython.protocol.packages import canonical_name, is_requirement

_NAMES = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "Bio": "biopython",
    "cairo": "pycairo",
    "community": "python-louvain",
    "Crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "pymupdf",
    "git": "gitpython",
    "github": "pygithub",
    "graphviz": "graphviz",
    "igraph": "igraph",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "Levenshtein": "levenshtein",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "MySQLdb": "mysqlclient",
    "networkx": "networkx",
    "OpenSSL": "pyopenssl",
    "osgeo": "gdal",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "pylab": "matplotlib",
    "pywt": "pywavelets",
    "serial": "pyserial",
    "shapefile": "pyshp",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "skopt": "scikit-optimize",
    "slugify": "python-slugify",
    "snappy": "python-snappy",
    "umap": "umap-learn",
    "usb": "pyusb",
    "wx": "wxpython",
    "Xlib": "python-xlib",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}


def distribution_of(module: str) -> str:
    """Return the package that has a module, as its requirement; "" for one of Python's own, or no name of a module."""
    top = module.partition(".")[0]
    if not top.isidentifier() or top in sys.stdlib_module_names or top.startswith("_"):
        return ""
    name = canonical_name(_NAMES.get(top, top))
    return name if is_requirement(name) else ""
