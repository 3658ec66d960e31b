"""Whatever people look at: tables for the terminal, the HTML report of many runs, contact sheets, and experiment
trackers. It reads results and run folders and writes pages and pictures. It computes no metric and runs no network."""
