import { cells } from './cell';

// systemd 252 with runc and crun.

cells('systemd', 'bookworm', 252);
