"""Things that travel: a cell or a call on its way out, its value or its error on its way back.

Map:

* ``task.py``: a task, made of a cell or of a call, ready to be sent
* ``reads.py``: the names that a cell reads, from its source
* ``capture.py``: the values of these names, those that the notebook's functions use, and the blame for one that can't
  travel
* ``shell_names.py``: what never travels: IPython's own names
* ``ended.py``: files, pools and generators, which travel when they are over; ``unstarted.py``: those before they begin
* ``closed.py``: databases, threads and processes, which travel when they are over
* ``libraries.py``: objects of libraries whose own pickle fails or loses something; ``widgets.py``: those of ipywidgets
* ``payload.py``: the bytes of a task and of a result
* ``buffer_store.py``: the client's large buffers, by the hash of their bytes
* ``by_identity.py``: constants and streams that there is one of in each process
* ``by_value.py``: how cached functions, cached properties, dispatching functions and new types are pickled
* ``bindings.py``: the names that a cell binds; ``small.py``: what is small and plain
* ``around.py``: what goes around a task: ``modules.py``, found by ``local_modules.py``, and ``files.py``
* ``each.py``: a cell that runs for many settings, frozen once; ``progress.py``: how far a loop is
* ``inputs.py``: futures among a call's arguments, whose values come after it was frozen
* ``classes.py``, ``objects.py``: classes of the notebook and their objects, made anew without running their code
* ``sources.py``: the text of the cells where code that travels is defined
* ``leaving.py``, ``blame.py``: attributes that stay behind, and which part of a value is to blame if it can't travel
* ``relayed.py``: records of its loggers; ``warned.py``: its warnings; ``running.py``: whether this is a task
* ``settings.py``, ``shell_settings.py``, ``log_settings.py``: the notebook's settings that hold in its tasks
* ``seeds.py``: random numbers of a task, of a seed or of nobody's; ``seed_sequence.py``: its words, without numpy
* ``settled.py``: a finished future inside a task
* ``outcome.py``: a result's bytes as a value, or as the exception to raise
* ``tracebacks.py``: tracebacks without our frames, also of groups and of what comes with an error
* ``loading.py``: why a pickle could not be loaded, and what to do
* ``safe/``: results as plain data, for workers that aren't trusted
* ``images.py``: the dimensions of a picture, before a front end decodes it

Pure: nothing here opens a connection or starts a process. The runner imports parts of it inside the sandbox.
"""
