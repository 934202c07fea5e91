"""What all tests share: the signals that they begin with."""

import signal

# A shell that runs a job in the background has it ignore Ctrl-C, and our children inherit that:
# then nothing that is interrupted ends.
signal.signal(signal.SIGINT, signal.default_int_handler)
