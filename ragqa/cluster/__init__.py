"""The long works on many machines, by Ray: cleaning and embedding a catalogue, answering a file of questions."""
