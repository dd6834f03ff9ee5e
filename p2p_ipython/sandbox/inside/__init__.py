"""What runs behind a sandbox's wall. Nothing here knows which mechanism made the wall.

``runner``          the process itself: takes frames in, has tasks executed one after the other
``warden``          its parent, which clears up when either has ended
``wall``            the wall, where nothing outside makes one: Landlock and a filter of system calls
``shared``          semaphores and shared memory for multiprocessing behind that wall
``machine``         the first process of a virtual machine, above the warden
``execute``         one task: unpack, run, pack the value or describe the error, put the process back
``main_module``     the namespace of a task as ``__main__``
``shell``           the IPython shell that executes cells
``buffers``         the large buffers that the runner keeps
``capture_output``  what a task prints and displays, in order
``channel``         frames to the agent
``describe_error``  an error in bounded words
``call_line``       the call of a task, as the first line of its traceback
``interrupts``      interrupts the task that is meant, and never the machinery
``limits``          resource limits
``report_progress``  how far a task is, as it says
``text_bars``       tqdm's bars: those for notebooks as text, all of them reported
``threads``         which threads are amid the work of a task that is over
``tidy``            puts the process back as it was before a task
``process_state``   its state that a call can change: signals, locale, time zone, built-ins, …
``shell_state``     the shell's: formatters, traits, magics; and matplotlib's in it
``library_state``   that of other libraries: pandas, loggers, random generators
"""
