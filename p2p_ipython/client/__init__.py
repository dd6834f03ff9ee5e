"""The client's side: a cluster and its futures, its tasks on their way, lending and hosting from a notebook.

What users call::

    connect      checks what the user says of a cluster, and joins it
    cluster      the cluster: an executor, with a journal, a timeline, a status
    future       the future of a task, and the promise behind it
    public       the names that users may call

How it works::

    options      views of a cluster for whose tasks some options hold
    task_options the options of one task
    core         what a cluster is made of, for the rest of the package
    submitted    the futures of what was submitted, between their users and the bridge
    lazy         tasks that run when their value is asked for
    inputs       tasks that wait for futures among their arguments
    frozen       tasks that are kept, to run again
    sweep        the futures of a cell that runs for many settings, or on each worker
    mapping      calls for many elements, in tasks that take long enough
    groups       tasks that belong together: counts and an estimate
    opening      the ways into a cluster: this machine, your own board, friends
    local        a personal cluster: a board and workers as child processes
    inline       the same in this process: no board, no workers
    knocking     asks to join a shared cluster
    bridge       performs the client machine's actions on board and links
    inflow       bytes and frames that workers send
    records      follows the machine's actions, for people: journal, follow
    journal      the record of tasks' lives
    follow       collects changes for those who watch
    face         the synchronous face of what happens on the loop
    aside        threads for calls that may block
    offers       has joblib know the backend "p2p", once it is imported; joblib_backend is that
    ending       the one ending, when the interpreter ends

What people see::

    display      what a stranger's output may show
    relaying     records of tasks' loggers, for the loggers here
    shown        when output is shown: as it comes, at the end, or not
    printing     prints the output of tasks
    progress     how far a task is, as it says
    completing   futures and values as they are ready, also for ``async for``
    bars         bars for programs and terminals
    status       a cluster's state as text and HTML
    table        the journal as a table
    timeline     a picture of where time went
    views        the notebook's views of clusters

Lending and hosting::

    lending      lends this machine
    reception    hosts, invites, joins: the calls
    hosted       one hosted cluster, and what is shown of it
    errands      invitations and joinings that wait for somebody
"""
