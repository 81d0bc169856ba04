import { cells } from './cell';

// The cgroupfs driver, without systemd, with runc and crun.

cells('cgroupfs', 'trixie');
