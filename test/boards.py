"""Trees of files as a Jetson has them below `/`, one per family of boards."""

import os

ORIN_NANO_CONF = """
# < POWER_MODEL ID=id_num NAME=mode_name >
# < PM_CONFIG DEFAULT=default_mode >
< PM_CONFIG DEFAULT=1 >
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
<PARAM TYPE=CLOCK NAME=EMC >
MAX_FREQ /sys/kernel/nvpmodel_clk_cap/emc
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
CPU_ONLINE CORE_1 1
FBP_POWER_GATING FBP_PG_MASK 2
TPC_POWER_GATING TPC_PG_MASK 240
CPU_A78_0 MAX_FREQ 1497600
GPU MAX_FREQ 612000000
EMC MAX_FREQ 2133000000
< POWER_MODEL ID=1 NAME=25W >
CPU_ONLINE CORE_0 1
CPU_ONLINE CORE_1 1
FBP_POWER_GATING FBP_PG_MASK 2
TPC_POWER_GATING TPC_PG_MASK 240
CPU_A78_0 MIN_FREQ 729600
CPU_A78_0 MAX_FREQ 1344000  # kHz
GPU MIN_FREQ 0
GPU MAX_FREQ 918000000
EMC MAX_FREQ 3199000000
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
CPU_ONLINE CORE_0 1
CPU_ONLINE CORE_1 1
FBP_POWER_GATING FBP_PG_MASK 2
TPC_POWER_GATING TPC_PG_MASK 240
CPU_A78_0 MAX_FREQ -1
GPU MAX_FREQ -1
EMC MAX_FREQ 0
< POWER_MODEL ID=7 NAME=7W >
CPU_ONLINE CORE_0 1
CPU_ONLINE CORE_1 0
FBP_POWER_GATING FBP_PG_MASK 2
TPC_POWER_GATING TPC_PG_MASK 252
CPU_A78_0 MAX_FREQ 960000
GPU MAX_FREQ 408000000
EMC MAX_FREQ 2133000000
"""
AGX_ORIN_CONF = """
< POWER_MODEL ID=0 NAME=MAXN >
TPC_POWER_GATING TPC_PG_MASK 0
FBP_POWER_GATING FBP_PG_MASK 0
CPU_A78_0 MAX_FREQ -1
CPU_A78_1 MAX_FREQ -1
GPU MAX_FREQ -1
< POWER_MODEL ID=2 NAME=MODE_30W >
TPC_POWER_GATING TPC_PG_MASK 240
FBP_POWER_GATING FBP_PG_MASK 2
CPU_A78_0 MAX_FREQ 1728000
CPU_A78_1 MAX_FREQ 1728000
GPU MAX_FREQ 612000000
EMC MAX_FREQ 0
< PM_CONFIG DEFAULT=2 >
"""


def plant(root, files):
    """Write files, by their place below the root."""
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f'{text}\n')
    return root


def stat(*cores):
    """Give the text of /proc/stat of cores that were busy and idle for so many ticks, by their numbers."""
    every = (sum(busy for _, busy, _ in cores), sum(idle for _, _, idle in cores))
    lines = [('', *every), *cores]
    return '\n'.join(f'cpu{name}  {busy} 0 0 {idle} 0 0 0 0 0 0' for name, busy, idle in lines)


def orin_nano(root):
    """An Orin Nano Super with JetPack 6, of which one core is off."""
    return plant(
        root,
        {
            'proc/device-tree/model': 'NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0',
            'proc/device-tree/compatible': 'nvidia,p3768-0000+p3767-0005-super\0nvidia,tegra234\0',
            'etc/nv_tegra_release': '# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic',
            'etc/nvpmodel.conf': ORIN_NANO_CONF,
            'var/lib/nvpmodel/status': 'pmode:0001 fmode:fan_mode_quiet',
            'proc/stat': stat((0, 100, 900), (2, 0, 1000)),
            'proc/meminfo': 'MemTotal:        7802880 kB\nMemFree:  10 kB\nMemAvailable:    5852160 kB\n'
            'SwapTotal:      12290048 kB\nSwapFree:       11962368 kB',
            **cpus('0,2', (0, 729600, 1344000), (1, 729600, 1344000), (2, 729600, 1344000)),
            'sys/devices/platform/gpu.0/load': 999,
            **gpu('17000000.gpu', 1020000000, 306000000, 1020000000),
            **zones(
                ('cpu-thermal', 46125), ('gpu-thermal', 50468), ('cv0-thermal', 45000), ('tj-thermal', 50468)
            ),
            **rails(
                '1-0040',
                ('VDD_IN', 4968, 1520),
                ('VDD_CPU_GPU_CV', 4960, 1784),
                ('VDD_SOC', 4960, 496),
            ),
            **limits('1-0040', 1, max_ma=4000, crit_ma=5000),
            **trips(3, ('critical', 104500), ('passive', 99000), ('active', 70000)),
            **coolers(('pwm-fan', 2, 10), ('cpu-throttle-alert', 0, 2), ('gpu-throttle-alert', 0, 2)),
            **over_currents(0, 2, 37),
            'sys/kernel/nvpmodel_clk_cap/emc': 3199000000,
            'sys/class/hwmon/hwmon0/name': 'pwmfan',
            'sys/class/hwmon/hwmon0/pwm1': 77,
            'sys/class/hwmon/hwmon2/name': 'pwm_tach',
            'sys/class/hwmon/hwmon2/rpm': 1350,
        },
    )


def orin_nx(root):
    """An Orin NX with JetPack 5, whose clocks jetson_clocks has fixed."""
    return plant(
        root,
        {
            'proc/device-tree/model': 'NVIDIA Orin NX Developer Kit\0',
            'proc/device-tree/compatible': 'nvidia,p3509-a02+p3767-0000\0nvidia,tegra234\0',
            'etc/nv_tegra_release': '# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref',
            **cpus('0-1', (0, 1984000, 1984000), (1, 1984000, 1984000), (2, 729600, 1984000)),
            'sys/devices/gpu.0/load': 125,
            **gpu('17000000.ga10b', 918000000, 918000000, 918000000),
            **zones(('CPU-therm', 43500), ('tj-therm', 44000)),
            **rails('1-0040', ('VDD_IN', 5000, 1000), ('VDD_CPU_GPU_CV', 5000, 100), ('VDD_SOC', 5000, 200)),
        },
    )


def agx_orin(root):
    """An AGX Orin with JetPack 5, where no rail has all, and parts are off that say -256."""
    return plant(
        root,
        {
            'proc/device-tree/model': 'NVIDIA Jetson AGX Orin Developer Kit\0',
            'proc/device-tree/compatible': 'nvidia,p3737-0000+p3701-0000\0nvidia,tegra234\0',
            'etc/nv_tegra_release': '# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref',
            'etc/nvpmodel.conf': AGX_ORIN_CONF,
            'var/lib/nvpmodel/status': 'pmode:0002',
            **gpu('17000000.ga10b', 306000000, 306000000, 612000000),
            'sys/class/devfreq/17000000.ga10b/device/load': 0,
            **zones(('CPU-therm', 41437), ('GPU-therm', -256000)),
            **rails(
                '1-0040', ('VDD_GPU_SOC', 19864, 180), ('VDD_CPU_CV', 19864, 40), ('VIN_SYS_5V0', 5000, 700)
            ),
            **rails('1-0041', ('NC', 0, 0), ('VDDQ_VDD2_1V8AO', 1800, 500), ('NC', 0, 0)),
        },
    )


def thor(root):
    """An AGX Thor with JetPack 7, whose GPU has clocks but no load."""
    return plant(
        root,
        {
            'proc/device-tree/model': 'NVIDIA Jetson AGX Thor Developer Kit\0',
            'proc/device-tree/compatible': 'nvidia,p3971-0080+p3834-0008\0nvidia,tegra264\0',
            'etc/nv_tegra_release': '# R38 (release), REVISION: 4.0, GCID: 43443517, BOARD: generic',
            'etc/nvpmodel.conf': '< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=120W >\n'
            '< PM_CONFIG DEFAULT=1 >',
            'var/lib/nvpmodel/status': 'pmode:0000',
            **gpu('gpu-gpc-0', 314000000, 314000000, 1575000000),
            **zones(('cpu-thermal', 37343), ('soc012-thermal', 37468)),
            **rails('2-0040', ('VDD_GPU', 10000, 196), ('VDD_CPU_SOC_MSS', 10000, 588)),
            **rails('2-0041', ('VIN_SYS_5V0', 5000, 1127), ('VIN', 20000, 989)),
        },
    )


FAMILIES = {'orin_nano': orin_nano, 'orin_nx': orin_nx, 'agx_orin': agx_orin, 'thor': thor}


def cpus(online, *cores):
    """Give the files of cores: number, lowest and highest clock in kHz."""
    folder = 'sys/devices/system/cpu'
    files = {f'{folder}/online': online, f'{folder}/cpuidle/current_driver': 'psci_idle'}
    for number, low, high in cores:
        clocks = f'{folder}/cpu{number}/cpufreq'
        files[f'{clocks}/scaling_cur_freq'] = high
        files[f'{clocks}/scaling_min_freq'] = low
        files[f'{clocks}/scaling_max_freq'] = high
        files[f'{clocks}/cpuinfo_max_freq'] = 1984000
        files[f'{clocks}/scaling_governor'] = 'schedutil'
    return files


def gpu(name, now, low, high):
    """Give the files of the clocks of a GPU, in Hz."""
    folder = f'sys/class/devfreq/{name}'
    clocks = {'cur_freq': now, 'min_freq': low, 'max_freq': high, 'governor': 'nvhost_podgov'}
    clocks['available_frequencies'] = f'306000000 612000000 {max(high, 918000000)} '
    return {f'{folder}/{key}': value for key, value in clocks.items()}


def zones(*kinds):
    """Give the files of thermal zones: type, millidegrees."""
    folder = 'sys/class/thermal/thermal_zone'
    return {
        f'{folder}{number}/{key}': value
        for number, (kind, temp) in enumerate(kinds)
        for key, value in (('type', kind), ('temp', temp))
    }


def rails(address, *channels):
    """Give the files of an INA3221: label, mV and mA of each channel."""
    folder = f'sys/bus/i2c/drivers/ina3221/{address}/hwmon/hwmon{address[-1]}'
    return {
        f'{folder}/{key}': value
        for number, (label, millivolts, milliamperes) in enumerate(channels, 1)
        for key, value in (
            (f'in{number}_label', label),
            (f'in{number}_input', millivolts),
            (f'curr{number}_input', milliamperes),
        )
    }


def limits(address, channel, *, max_ma, crit_ma, alarms=(0, 0)):
    """Give the files of the limits of a channel of an INA3221, in mA, and of the alarms of both."""
    current = f'sys/bus/i2c/drivers/ina3221/{address}/hwmon/hwmon{address[-1]}/curr{channel}'
    values = {'max': max_ma, 'crit': crit_ma, 'max_alarm': alarms[0], 'crit_alarm': alarms[1]}
    return {f'{current}_{key}': value for key, value in values.items()}


def trips(zone, *points):
    """Give the files of the trip points of a thermal zone: type, millidegrees."""
    point = f'sys/class/thermal/thermal_zone{zone}/trip_point'
    return {
        f'{point}_{number}_{key}': value
        for number, (kind, temp) in enumerate(points)
        for key, value in (('type', kind), ('temp', temp))
    }


def coolers(*devices):
    """Give the files of cooling devices: type, state, highest state."""
    folder = 'sys/class/thermal/cooling_device'
    return {
        f'{folder}{number}/{key}': value
        for number, (kind, state, highest) in enumerate(devices)
        for key, value in (('type', kind), ('cur_state', state), ('max_state', highest))
    }


def over_currents(*events):
    """Give the files of the counters of over-currents."""
    folder = 'sys/class/hwmon/hwmon3'
    counters = {f'{folder}/oc{number}_event_cnt': count for number, count in enumerate(events, 1)}
    return {f'{folder}/name': 'soctherm_oc', **counters}


def gate(path):
    """Make a file one that says EAGAIN when it is read; closing the descriptor that is given ends it."""
    path.unlink()
    os.mkfifo(path)
    return os.open(path, os.O_RDWR)
