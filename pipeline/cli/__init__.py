"""The command line, and jobs that outlive their shell."""
