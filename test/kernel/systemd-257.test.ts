import { cells } from './cell';

// systemd 257 with runc and crun.

cells('systemd', 'trixie', 257);
