"""The engine: API, command line, cluster, scheduler plugin, client loop, reports.

`api` is the face, `engine` the client's loop, `plugin` the scheduler's side, `policy` and
`placement` what they decide by, `worker` what runs on the workers. What is public of it are
`approxifer.score` and `approxifer.submit`, and what these return.
"""

__all__: list[str] = []
