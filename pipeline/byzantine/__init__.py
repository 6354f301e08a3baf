"""Wrong outputs: spot checks, referee, members, convictions. No Dask."""
