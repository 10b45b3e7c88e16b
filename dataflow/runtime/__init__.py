"""What the flow uses of Bytewax beyond its documented interface.

Only this folder and `dataflow.recovery` depend on such parts: the command line of `bytewax.run`,
the files and tables of a recovery store, how keys are routed to workers, how workers exchange
items, and of which steps a flow is made. `tests/test_bytewax_insides.py` fails when one of them
changes.
"""

__all__ = ["CHECKED_WITH", "PICKLE_CODE"]

CHECKED_WITH = "0.21.1"
"""The Bytewax version that this folder and `dataflow.recovery` were checked with."""

PICKLE_CODE = 240
"""Code that stands for our function in pickles between workers: `copyreg` leaves 240 to 255 to
applications, and Bytewax registers none of them."""
