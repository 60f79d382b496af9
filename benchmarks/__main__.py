"""List the benchmarks."""

import sys

if __name__ == "__main__":
    sys.stdout.write(
        "python -m benchmarks.road      time and memory of every stage, from a catalogue to an answer\n"
        "python -m benchmarks.training  speed and memory of fine-tuning, beside stock Trainer + peft and TRL\n"
        "python -m benchmarks.retrieval is the right product found? by question kind and on shoppers' queries, beside peers\n"
        "python -m benchmarks.answers   all ways of answering compared, with intervals: does fine-tuning pay, does retrieval?\n"
        "python -m benchmarks.sweep     hyper-parameters of fine-tuning, one at a time, on validation questions\n"
        "python -m benchmarks.decoding  what an answer costs that the model writes, beside `generate` and prompt look-up\n"
        "python -m benchmarks.service   how many clients one service can bear, with micro-batches and without\n"
        "python -m benchmarks.scale     how time, memory and files grow, from 10,000 to 1.3 million products, beside peers\n"
        "python -m benchmarks.plan      what `ragqa plan` reckons with, from the results of scale and service; docs/scale.md\n"
        "python -m benchmarks.replicas  two replicas behind a balancer, one told to end, one killed: is every answer right?\n"
        "python -m benchmarks.cluster   what Ray costs beside one process, and what is lost when a worker dies\n"
        "python -m benchmarks.milvus    does Milvus find what FAISS finds? the same first candidate, differences, milliseconds\n"
        "python -m benchmarks.reliability crashes, damage, many readers, hostile input: is everything as docs/reliability.md says?\n"
    )
