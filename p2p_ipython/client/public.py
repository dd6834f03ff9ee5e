"""The public names of a cluster and of a future, besides those of the Python classes that they extend.

``dir()`` shows these names, those of ``concurrent.futures`` that users may call, and no others. Names that begin
with an underscore may change at any time.
"""

CLUSTER = frozenset(
    {
        *("cancel_task", "close", "closed", "cluster", "journal", "map", "seeded", "members", "name", "panel", "pids"),
        "options",
        *(
            "settings",
            "shared",
            "shutdown",
            "slots",
            "status",
            "submit",
            "target",
            "timeline",
            "trust",
            "wait_for_workers",
        ),
    }
)

FUTURE = frozenset(
    {
        *("add_done_callback", "again", "cancel", "cancelled", "done", "error_text", "exception", "files", "label"),
        *("names", "outputs", "progress", "replay", "result", "running", "state_text", "stderr", "stdout", "task_id"),
        "worker",
    }
)
