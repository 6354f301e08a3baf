"""The face of a run: report, progress, timeline, inspection."""
