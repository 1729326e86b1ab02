"""Work nobody waits for, in bounded steps under one supervisor."""
