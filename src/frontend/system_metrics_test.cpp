#include "frontend/system_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::frontend {
namespace {

TEST(SystemMetrics, ProcessorTimeIsReadWithoutWaitingAndGuests) {
  const auto times = parse_cpu_times("cpu  100 10 50 800 40 0 5 15 99 99\ncpu0 1 1 1 1\n");
  ASSERT_TRUE(times);
  EXPECT_EQ(times->total, 1020u);
  EXPECT_EQ(times->busy, 180u);
  EXPECT_EQ(parse_cpu_times("cpu  1 2 3 4\n")->total, 10u) << "an old kernel has fewer columns";
}

TEST(SystemMetrics, WhatIsNoProcessorLineIsRefused) {
  for (const char* text : {"", "cpu0 1 2 3 4\n", "cpu  1 2\n", "cpu  a b c d\n", "cpu  -1 2 3 4\n"}) EXPECT_FALSE(parse_cpu_times(text)) << text;
}

TEST(SystemMetrics, MemoryIsWhatPeopleCanStillHave) {
  const auto memory = parse_memory("MemTotal:        4096 kB\nMemFree:  100 kB\nMemAvailable:    1024 kB\n");
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->used_mb, 3.0);
  EXPECT_EQ(memory->available_mb, 1.0);
  EXPECT_EQ(memory->percent, 75.0);
  for (const char* text : {"", "MemTotal: 5 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n", "MemTotal: 0 kB\nMemAvailable: 0 kB\n"}) {
    EXPECT_FALSE(parse_memory(text)) << text;
  }
}

TEST(SystemMetrics, LinesOfNvidiaSmiThatAreNoGpusAreLeftOut) {
  const auto gpus = parse_nvidia_smi("0, 25, 1000, 4000\nNo devices were found\n\n12, [N/A], 10, 0\n1, 2, 3\n");
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_EQ(gpus[0].device, "0");
  EXPECT_EQ(gpus[0].percent, 25.0);
  EXPECT_EQ(gpus[0].memory_used_mb, 1000.0);
  EXPECT_EQ(gpus[0].memory_percent, 25.0);
  EXPECT_EQ(gpus[1].device, "12");
  EXPECT_EQ(gpus[1].percent, 0.0);
  EXPECT_EQ(gpus[1].memory_percent, 0.0);
}

TEST(SystemMetrics, TheSamplerReadsThisMachineAndAsksNvidiaSmi) {
  const TempDir folder;
  const auto program = folder.path() / "nvidia-smi";
  write_file_atomic(program, "#!/bin/sh\necho '3, 50, 20, 40'\n");
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", (folder.path().string() + ":" + path).c_str(), 1);

  Mutex mutex;
  CondVar came;
  std::vector<SystemSample> samples;
  {
    SystemSampler sampler(seconds(3600), [&](const SystemSample& sample) {
      MutexLock lock(mutex);
      samples.push_back(sample);
      came.notify_all();
    });
    MutexLock lock(mutex);
    const Deadline deadline = Deadline::after(seconds(20));
    while (samples.empty() && came.wait(mutex, deadline)) {
    }
  }
  ::setenv("PATH", path.c_str(), 1);
  ASSERT_EQ(samples.size(), 1u) << "one at once, the next in an hour; and the end does not wait for it";
  ASSERT_TRUE(samples[0].cpu_percent && samples[0].memory && samples[0].disk);
  EXPECT_GT(samples[0].memory->available_mb, 0);
  EXPECT_GT(samples[0].disk->used_gb + samples[0].disk->available_gb, 0);
  ASSERT_EQ(samples[0].gpus.size(), 1u);
  EXPECT_EQ(samples[0].gpus[0].device, "3");
}

}  // namespace
}  // namespace penstock::frontend
