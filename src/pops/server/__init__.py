"""The server: pops over HTTP. One process answers requests and keeps the queue; a process per model makes images.

The modules build on each other in this order: settings, store, references, child, decoder and worker (the processes
that touch photos and networks), events, metrics, lines, checks, guard, api, app, serving.
"""
