"""Load and engine benchmarks, against peers: `python -m benchmarks NAME`."""
