"""`make run`: three nodes on this machine, a first file, and what to try next.

`__main__` is the command, `story` its steps in order, `children` the node processes, `client`
the HTTP it speaks and `screen` what it prints. It uses a node only as anyone outside could.
"""
