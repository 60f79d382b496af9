"""List the benchmarks."""

import sys

if __name__ == "__main__":
    sys.stdout.write("python -m benchmarks.road    time and memory of every stage, from a catalogue to an answer\n")
