"""What a person sees of a run: report, progress, timeline, inspection."""
