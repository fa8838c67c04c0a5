"""The benchmarks, held to servers whose behaviour is known beforehand."""
