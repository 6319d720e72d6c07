#include "frontend/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <random>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

struct Entry {
  std::string name;
  std::string content = "x";
  unsigned type = AE_IFREG;
  std::string symlink = "";
  std::string hard_link = "";
};

enum class Format { kZip, kTarGz };

void write_archive(const fs::path& path, const std::vector<Entry>& entries, Format format) {
  const std::unique_ptr<::archive, decltype(&::archive_write_free)> out(::archive_write_new(), &::archive_write_free);
  if (format == Format::kZip) {
    ::archive_write_set_format_zip(out.get());
  } else {
    ::archive_write_set_format_pax_restricted(out.get());
    ::archive_write_add_filter_gzip(out.get());
  }
  ASSERT_EQ(::archive_write_open_filename(out.get(), path.c_str()), ARCHIVE_OK);
  const std::unique_ptr<::archive_entry, decltype(&::archive_entry_free)> header(::archive_entry_new(), &::archive_entry_free);
  for (const Entry& entry : entries) {
    ::archive_entry_clear(header.get());
    ::archive_entry_set_pathname(header.get(), entry.name.c_str());
    ::archive_entry_set_filetype(header.get(), entry.type);
    ::archive_entry_set_perm(header.get(), 0755);
    if (!entry.symlink.empty()) ::archive_entry_set_symlink(header.get(), entry.symlink.c_str());
    if (!entry.hard_link.empty()) ::archive_entry_set_hardlink(header.get(), entry.hard_link.c_str());
    const bool has_data = entry.type == AE_IFREG && entry.hard_link.empty();
    ::archive_entry_set_size(header.get(), has_data ? static_cast<la_int64_t>(entry.content.size()) : 0);
    ASSERT_GE(::archive_write_header(out.get(), header.get()), ARCHIVE_WARN) << ::archive_error_string(out.get());
    const auto size = static_cast<la_ssize_t>(entry.content.size());
    if (has_data) {
      ASSERT_EQ(::archive_write_data(out.get(), entry.content.data(), entry.content.size()), size);
    }
  }
  ASSERT_EQ(::archive_write_close(out.get()), ARCHIVE_OK);
}

// Without the fsync of write_file_atomic(), which costs more than all else here.
void put(const fs::path& file, std::string_view text) { std::ofstream(file, std::ios::binary) << text; }

std::string text_of(const fs::path& file) { return read_file(file, 1 << 20).value(); }

class ArchiveTest : public testing::TestWithParam<Format> {
 protected:
  fs::path file() const { return dir_.path() / (GetParam() == Format::kZip ? "a.mar" : "a.tar.gz"); }
  fs::path folder() const { return dir_.path() / "private" / "0"; }
  void SetUp() override { fs::create_directory(dir_.path() / "private"); }
  void write(const std::vector<Entry>& entries) { write_archive(file(), entries, GetParam()); }
  // What unpacking says; afterwards nothing but the archive is there.
  std::string refusal(const ArchiveLimits& limits = {}) {
    const auto problem = unpack_archive(file(), folder(), limits);
    if (!problem) return "unpacked";
    EXPECT_FALSE(fs::exists(folder())) << "half a folder stays";
    EXPECT_EQ(std::distance(fs::recursive_directory_iterator(dir_.path()), {}), 2) << "something was written elsewhere";
    EXPECT_THAT(problem->message(), HasSubstr(file().string()));
    return problem->message();
  }
  TempDir dir_;
};

TEST_P(ArchiveTest, IsUnpackedWithItsFolders) {
  write({{"MAR-INF/", "", AE_IFDIR}, {"MAR-INF/MANIFEST.json", "{}"}, {"./deep/er/weights.bin", std::string(200'000, 'w')}, {"config.json", "{\"a\": 1}"}});
  ASSERT_FALSE(unpack_archive(file(), folder()));
  EXPECT_EQ(text_of(folder() / "MAR-INF/MANIFEST.json"), "{}");
  EXPECT_EQ(text_of(folder() / "config.json"), "{\"a\": 1}");
  EXPECT_EQ(text_of(folder() / "deep/er/weights.bin"), std::string(200'000, 'w'));
}

TEST_P(ArchiveTest, NothingIsWrittenOutside) {
  for (const char* name : {"../escaped", "a/../../escaped", "..", "a/.."}) {
    write({{"good"}, {name}});
    EXPECT_THAT(refusal(), AllOf(HasSubstr("entry '" + std::string(name) + "'"), HasSubstr("'..' is not allowed"))) << name;
  }
  write({{"/tmp/penstock-escaped"}});
  EXPECT_THAT(refusal(), HasSubstr("entry '/tmp/penstock-escaped': absolute names"));
  EXPECT_FALSE(fs::exists("/tmp/penstock-escaped"));
  write({{"..\\escaped"}});
  EXPECT_THAT(refusal(), testing::AnyOf(HasSubstr("backslashes"), HasSubstr("'..' is not allowed"))) << "in a zip they are taken for slashes";
  write({{"a\nb"}});
  EXPECT_THAT(refusal(), HasSubstr("entry 'a?b': control characters"));
}

TEST_P(ArchiveTest, LinksAreRefused) {
  write({{"link", "", AE_IFLNK, "/etc"}, {"link/passwd"}});
  EXPECT_THAT(refusal(), HasSubstr("entry 'link': links are not allowed, found a symbolic link"));
  write({{"link", "", AE_IFLNK, "inside"}, {"inside"}});
  EXPECT_THAT(refusal(), HasSubstr("found a symbolic link")) << "also one that stays inside";
  if (GetParam() == Format::kZip) return;  // knows no others
  write({{"a"}, {"hard", "", AE_IFREG, "", "/etc/passwd"}});
  EXPECT_THAT(refusal(), HasSubstr("entry 'hard': links are not allowed, found a hard link"));
  write({{"fifo", "", AE_IFIFO}});
  EXPECT_THAT(refusal(), HasSubstr("entry 'fifo': expected a file or a folder"));
  write({{"device", "", AE_IFCHR}});
  EXPECT_THAT(refusal(), HasSubstr("entry 'device': expected a file or a folder"));
}

TEST_P(ArchiveTest, NothingIsWrittenTwice) {
  write({{"a", "first"}, {"./a", "second"}});
  EXPECT_THAT(refusal(), HasSubstr("entry './a': another entry has the same name"));
  write({{"a", "file"}, {"a/b", "in a file"}});
  EXPECT_THAT(refusal(), HasSubstr("entry 'a/b': another entry is a file of that name"));
  write({{"a/b"}, {"a", "a folder's name"}});
  EXPECT_THAT(refusal(), HasSubstr("entry 'a': another entry has the same name"));
}

TEST_P(ArchiveTest, ABombIsRefusedBeforeItIsUnpacked) {
  ArchiveLimits limits;
  limits.any_ratio_bytes = 1 << 20;
  limits.ratio = 50;
  write({{"zeros", std::string(8 << 20, '\0')}});
  ASSERT_LT(fs::file_size(file()), 50'000u);
  EXPECT_THAT(refusal(limits), AllOf(HasSubstr("entry 'zeros'"), HasSubstr("unpacks to more than")));
  limits.ratio = 10'000;
  EXPECT_EQ(refusal(limits), "unpacked");
  fs::remove_all(folder());
  limits.bytes = 1000;
  write({{"a", std::string(600, 'a')}, {"b", std::string(600, 'b')}});
  EXPECT_THAT(refusal(limits), AllOf(HasSubstr("entry 'b'"), HasSubstr("unpacks to more than 1000 bytes"))) << "all files together";
}

TEST_P(ArchiveTest, AHundredThousandEntriesAreTooMany) {
  std::vector<Entry> entries(100'000, Entry{"", "", AE_IFDIR});
  for (size_t i = 0; i < entries.size(); ++i) entries[i].name = fmt::format("d{}/", i % 100);
  write(entries);
  EXPECT_THAT(refusal(), HasSubstr("more than 20000 entries"));
}

TEST_P(ArchiveTest, NamesHaveLimits) {
  write({{std::string(300, 'n')}});
  EXPECT_THAT(refusal(), HasSubstr("a part of its name is longer than 255 bytes"));
  std::string deep = "f", wide;
  for (int i = 0; i < 40; ++i) deep = "d/" + deep;
  write({{deep}});
  EXPECT_THAT(refusal(), HasSubstr("more than 32 folders"));
  for (int i = 0; i < 11; ++i) wide += std::string(100, 'w') + "/";
  write({{wide + "f"}});
  EXPECT_THAT(refusal(), HasSubstr("longer than 1024 bytes"));
}

TEST_P(ArchiveTest, WhatWasCutOffIsRefused) {
  std::string noise(20'000, '\0');
  std::mt19937 random(1);
  for (char& c : noise) c = static_cast<char>(random());
  write({{"one", noise}, {"two", noise.substr(7)}});
  const std::string whole = text_of(file());
  for (int tenth = 0; tenth < 10; ++tenth) {
    put(file(), whole.substr(0, whole.size() * static_cast<size_t>(tenth) / 10));
    EXPECT_THAT(refusal(), testing::AnyOf(HasSubstr("expected a whole zip or tar.gz file"), HasSubstr("damaged or cut off"))) << tenth;
  }
  if (GetParam() == Format::kZip) {
    put(file(), whole.substr(0, whole.size() - 1));
    EXPECT_THAT(refusal(), HasSubstr("expected a whole zip"));
  }
}

TEST_P(ArchiveTest, EverySingleByteChangeIsAnsweredAndStaysInside) {
  write({{"MAR-INF/MANIFEST.json", "{\"model\": {}}"}, {"b", "some more text"}});
  const std::string whole = text_of(file());
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ flip);
      put(file(), changed);
      if (refusal() == "unpacked") fs::remove_all(folder());
    }
  }
}

TEST_P(ArchiveTest, WhatIsNoArchiveIsRefused) {
  std::string noise(4096, '\0');
  std::mt19937 random(2);
  for (char& c : noise) c = static_cast<char>(random());
  for (const std::string& content : {std::string(), std::string("PK"), std::string("not an archive\n"), std::string("PK\x03\x04") + noise,
                                     std::string("\x1f\x8b\x08\x00", 4) + noise, noise}) {
    put(file(), content);
    EXPECT_THAT(refusal(), HasSubstr("expected a whole zip or tar.gz file"));
  }
  write({});
  EXPECT_NE(refusal(), "unpacked") << "an empty archive";
}

INSTANTIATE_TEST_SUITE_P(Formats, ArchiveTest, testing::Values(Format::kZip, Format::kTarGz),
                         [](const auto& info) { return info.param == Format::kZip ? "Zip" : "TarGz"; });

TEST(ArchiveNames, AreKnownByTheirSuffixes) {
  for (const char* name : {"a.mar", "b/a.zip", "a.tar.gz", "a.tgz"}) EXPECT_TRUE(is_archive_name(name)) << name;
  for (const char* name : {"a", "a.gz", "a.tar", ".mar", "a.mar.txt", ""}) EXPECT_FALSE(is_archive_name(name)) << name;
  EXPECT_EQ(model_stem("https://x/y/tiny.tar.gz"), "tiny");
  EXPECT_EQ(model_stem("store/tiny.v2/"), "tiny.v2");
  EXPECT_EQ(model_stem("tiny.mar"), "tiny");
  EXPECT_EQ(model_stem("store/tiny.Q4_1.gguf"), "tiny.Q4_1");
}

}  // namespace
}  // namespace penstock::frontend
