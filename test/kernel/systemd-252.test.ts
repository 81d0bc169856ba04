import { systemdCells } from './cell';

// systemd 252 with runc and crun.

systemdCells(252, 'bookworm');
