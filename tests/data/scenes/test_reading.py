"""Synthetic scenes through the reader of nuScenes tables: earlier pictures show objects where aligned boxes project."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multimodal_zoo.bev.boxes import gravity_centres
from multimodal_zoo.bev.geometry import history_pose, lidar_to_image
from multimodal_zoo.data.scenes.recording import Recording
from multimodal_zoo.data.scenes.rig import CAMERAS
from multimodal_zoo.data.scenes.settings import Settings
from multimodal_zoo.data.scenes.view import View, textures_of
from multimodal_zoo.data.synthetic_scenes import synthetic_scenes

SETTINGS = Settings(scenes=2, frames=2, width=200, height=112, seed=9, rate=4)


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    keys = ("scenes", "frames", "width", "height", "seed", "rate")
    given = {key: getattr(SETTINGS, key) for key in keys}
    frames = synthetic_scenes(str(tmp_path_factory.mktemp("read") / "set"), "train", **given)
    assert len(frames) == 2
    return frames[1]


def test_boxes_are_those_of_the_drive(frame) -> None:
    recording = Recording.drawn(frame.root, 0, SETTINGS)
    boxes, pose = recording.drive.boxes(0.5), recording.drive.pose(0.5)
    local = pose.to_ego(boxes.centres) - (0.92, 0, 1.86)
    mine = np.stack([-local[:, 1], local[:, 0], local[:, 2]], axis=1)
    centres = gravity_centres(torch.tensor(frame.info.objects.boxes)).numpy()
    assert len(centres) > 10
    for centre, name, row in zip(centres, frame.info.objects.names, frame.info.objects.boxes, strict=True):
        i = int(np.linalg.norm(mine - centre, axis=1).argmin())
        np.testing.assert_allclose(mine[i], centre, atol=1e-6)
        actor = recording.drive.actors[i]
        assert actor.name == name
        np.testing.assert_allclose(row[3:6], np.array(actor.size)[[1, 0, 2]], atol=1e-9)
        # Clockwise from backward: the published yaw is -yaw - pi/2 of one from the LiDAR's x, and y is forward.
        heading = boxes.yaws[i] - pose.heading + np.pi
        difference = (row[6] + heading) % (2 * np.pi)
        assert min(difference, 2 * np.pi - difference) < 1e-6
        if np.isfinite(row[7:]).all():
            before, after = recording.drive.boxes(0.0).centres[i], boxes.centres[i]
            speed = np.linalg.norm(after - before) * 2
            assert np.linalg.norm(row[7:]) == pytest.approx(speed, abs=1e-6)


@pytest.mark.parametrize("number", [-1, 0, 2])
def test_standing_objects_project_into_pictures_of_all_times(frame, number) -> None:
    """-1 is the current picture; 0 and 2 are half a second and one and a half seconds ago."""
    recording = Recording.drawn(frame.root, 0, SETTINGS)
    info, textures = frame.info, textures_of(recording.drive)
    standing = [i for i, one in enumerate(recording.drive.actors) if not one.speed and not one.drift]
    places = {i: recording.drive.boxes(0.0).centres[i] for i in standing}
    centres = gravity_centres(torch.tensor(info.objects.boxes))
    to_global = torch.tensor(info.ego2global @ info.lidar2ego)
    world = (centres @ to_global[:3, :3].T + to_global[:3, 3]).numpy()
    checked = 0
    for camera in CAMERAS:
        seen = info.cameras[camera.channel]
        pose = torch.tensor(seen.sensor2lidar)
        time = 0.5 + camera.delay
        if number >= 0:
            sweep = info.previous[number]
            assert camera.channel in sweep.paths[camera.channel]
            poses = [torch.tensor(one) for one in (info.ego2global, sweep.ego2global, info.lidar2ego)]
            pose, time = history_pose(*poses, pose), time - 0.5 * (number + 1)
        shot = View(camera, recording.drive, recording.backdrop_paint, textures, 200, 112).shot(time)
        matrix = lidar_to_image(torch.tensor(seen.intrinsic), pose)
        points = (centres @ matrix[:3, :3].T + matrix[:3, 3]).numpy()
        for point, place in zip(points, world, strict=True):
            i = next((i for i, there in places.items() if np.linalg.norm(there - place) < 1e-3), None)
            if i is None or point[2] < 2 or shot.covered[i] < 40 or shot.visible[i] < shot.covered[i]:
                continue
            column, row = np.round(point[:2] / point[2]).astype(int)
            if 0 <= column < 200 and 0 <= row < 112:
                assert shot.ids[row, column] == i + 1
                checked += 1
    assert checked >= 3
