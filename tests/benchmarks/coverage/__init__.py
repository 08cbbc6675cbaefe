"""Which models of the libraries can be planned, and do the emitted files compute what they do?

``python -m benchmarks.coverage`` puts each case of the catalogue through four steps, in a process
of its own: the original *runs*; an identity plan of it *plans* and emits; the emitted module
*equals* the original; emitted at a tenth of the parameters, it *trains*.
"""
