"""The settings of the cell's own PostgreSQL, scaled to the data node's memory."""

from __future__ import annotations

import platform

from configs.args import LOCAL_CONNECTIONS

_MB_PER_GB = 1024


def settings(memory_gb: float, cpu: float) -> dict[str, str]:
    """Server parameters for a data node of `memory_gb` and `cpu` cores, and why each differs."""
    memory_mb = memory_gb * _MB_PER_GB
    return {
        # No TCP: a private socket is the only way in.
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "max_connections": str(LOCAL_CONNECTIONS),
        # An eighth of the node: the system's cache holds the rest, and the custodian needs some too.
        "shared_buffers": _mb(memory_mb / 8, 64, 16_384),
        "effective_cache_size": _mb(memory_mb / 2, 256, 65_536),
        "work_mem": _mb(memory_mb / 8 / LOCAL_CONNECTIONS, 4, 64),
        "maintenance_work_mem": _mb(memory_mb / 32, 64, 2_048),
        "random_page_cost": "1.1",
        "max_wal_size": _mb(memory_mb / 4, 1_024, 16_384),
        "checkpoint_timeout": "15min",
        # Short queries: a parallel plan or a compiled one costs more than it saves.
        "jit": "off",
        "max_parallel_workers_per_gather": "0" if cpu < 8 else "2",
        # Abandoned work ends by itself: a dead client's query, a transaction that nobody goes on with.
        "client_connection_check_interval": "1s",
        "idle_in_transaction_session_timeout": "60s",
        "timezone": "UTC",
        "log_timezone": "UTC",
        **_QUIET,
        # macOS: a plain fsync leaves data in the drive's cache.
        **({"wal_sync_method": "fsync_writethrough"} if platform.system() == "Darwin" else {}),
    }


# Messages of failed statements quote values, so none is logged: `log` lets only the server's own
# state, FATAL and PANIC through, and `terse` drops details ("Key (…)=(…)", the crashed statement).
_QUIET = {
    "logging_collector": "off",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_lock_waits": "off",
    "log_temp_files": "-1",
    "log_line_prefix": "%m [%p] ",
    "debug_print_plan": "off",
    "debug_print_parse": "off",
    "debug_print_rewritten": "off",
}


def _mb(amount: float, least: float, most: float) -> str:
    return f"{int(max(least, min(most, amount)))}MB"
