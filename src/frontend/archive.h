#pragma once
// Unpacks model archives, which come from anybody: .mar and .zip (zip), .tar.gz and .tgz (tar in gzip).
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace penstock::frontend {

struct ArchiveLimits {
  int64_t bytes = int64_t{1} << 40;      // of all files together, unpacked
  int64_t ratio = 200;                   // unpacked bytes for each byte of the archive ...
  int64_t any_ratio_bytes = 64 << 20;    // ... but so many are always allowed
  int64_t entries = 20000;
  size_t name_bytes = 1024;              // of an entry's name
  int depth = 32;                        // folders within each other
};

// The name ends as an archive's does.
[[nodiscard]] bool is_archive_name(std::string_view name);
// "a/tiny.tar.gz" and "a/tiny" as "tiny".
[[nodiscard]] std::string model_stem(std::string_view name);

// Makes `folder`, which must not be there and whose parent must be private, and puts the archive's files and folders into it. What the file is
// decides its content, not its name. Blocks: reads and writes files.
// Errors: kInvalidArgument or kDataLoss, naming archive and entry, for what is no archive, is damaged or encrypted, is beyond a limit, names a
// place outside (absolute, ".."), names one file twice, or is neither a file nor a folder (links, devices). Then `folder` is gone again.
[[nodiscard]] std::optional<Error> unpack_archive(const std::filesystem::path& archive, const std::filesystem::path& folder,
                                                  const ArchiveLimits& limits = {});

}  // namespace penstock::frontend
