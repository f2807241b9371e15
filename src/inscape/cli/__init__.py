"""The command line: argument text to one public function each."""
