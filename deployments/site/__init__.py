"""What concerns several hosts: their plan, the files of each, running a site on one machine, drills."""
