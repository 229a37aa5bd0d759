"""What submitd costs, beside its peers: ``python -m benchmarks``; docs/performance.rst explains.

loads.py says what clients do, servers.py who is measured, generator.py and generate.c make the
load, processes.py reads what it costs, measure.py runs servers in turn, growth.py runs submitd
under growing loads, results.py makes tables and files of it, plots.py pictures.  Programs of their
own are shares.py, which says where the time goes, workers.py, policies.py, relay.py and
spool_depth.py.

It needs Linux.  It opens ports of 127.0.0.1, writes below a temporary directory, and ends what it
started, by pid.
"""
